"""Small scorers with known answers, for the tests of this platform and of its users."""
