"""Learning a repository through the editor: requests, commands, and a hint that a repository can be learnt."""
