"""Learning a repository through the editor: requests, commands, and the hint that there is such a thing."""
