"""Optional rooms, one for each other library that can drive this one; nothing else imports them."""
