"""How the files that ship with the project are made; nothing here is needed to use them."""
