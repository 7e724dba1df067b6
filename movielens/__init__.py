"""What movielens_pipeline.py is made of; each room has one subject, and imports run downward."""
