"""Programs that make the files shipped with the project. Users of the project do not need them."""
