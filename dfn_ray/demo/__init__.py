"""The demo: a real pool small enough to ship, and a filtering network trained for it."""
