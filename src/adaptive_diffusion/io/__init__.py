"""Files of every kind, checked when they are read, and written whole or not at all; and what a program prints."""
