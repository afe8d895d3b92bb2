"""What each stage of a run does: rooms called in the order of the data flow.

Every stage takes the run, reads what earlier stages published and publishes its own folder.
"""
