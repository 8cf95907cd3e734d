"""Wire types between server and engine. Standard library and cattrs only."""
