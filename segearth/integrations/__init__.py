"""Optional packages, one for each other library that can train or run this one; nothing else imports them."""
