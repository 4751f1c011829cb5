"""What ``ssh -s`` answers."""
