"""The command line: flags, signals and exit status, what is printed."""
