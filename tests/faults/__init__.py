"""The fault machine: real workers and stores under a seeded schedule of faults, and a checker."""
