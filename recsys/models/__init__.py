"""Models of interactions. Those without vectors are Scorers; sequential ones are Backbones."""
