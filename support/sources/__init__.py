"""Where images and captions come from: folders, lists of captions, tables, image files."""
