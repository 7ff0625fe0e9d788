"""A program beside main.py for what outgrows one machine: `python -m scale`."""
