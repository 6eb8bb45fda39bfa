"""Things to look at: terminal tables and the HTML report. Reads values and computes nothing new."""
