from indexlm.cli import main

main()
