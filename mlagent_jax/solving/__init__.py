"""`mlagent solve`: an agent improves a script on the user's own data, measured on rows that it never saw."""
