"""What plugins for GitHub Copilot's language server send beyond LSP."""
