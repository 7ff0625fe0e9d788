"""What the stages stand on: types, errors, settings, models, the Hub, data sources, storage."""
