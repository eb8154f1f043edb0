"""Where pictures and their labels come from."""
