"""The replayer: sends again to one webhook what lies in the log."""
