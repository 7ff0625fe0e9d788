"""A VLM behind a server, config.VLM_SERVER, in place of one in this process."""
