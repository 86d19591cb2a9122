"""The tests of `TierContract`, by theme."""
