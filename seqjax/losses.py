"""What is minimised: masked losses, all per real token."""
