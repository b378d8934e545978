"""Pictures: an item class a file type, and what a rewritten file keeps of the one before."""
