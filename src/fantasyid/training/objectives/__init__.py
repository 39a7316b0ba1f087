"""What each stage of training draws, asks for and minimises."""
