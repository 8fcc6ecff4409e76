"""What can be typed: the flags of each command, and their parser."""
