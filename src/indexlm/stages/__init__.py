"""What each stage of a run does: rooms called in the order of the data flow.

Every stage takes the run, reads what earlier stages published and publishes its own folder. Beside
them stands what is done to a model or a run that is there: `scoring` and `curve_points`.
"""
