"""The report's experiments at small scale, each with a verdict that is computed."""
