"""What the page of report.py is made of: the published result, figures from it, findings, charts."""
