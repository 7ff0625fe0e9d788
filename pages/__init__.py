"""Pages and notebook cards: plain results in, HTML out, in one file that loads nothing."""
