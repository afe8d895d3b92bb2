from indexlm.cli import command

command()
