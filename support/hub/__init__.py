"""The Hugging Face Hub: names, revisions, the local cache, downloads, tokens, errors."""
