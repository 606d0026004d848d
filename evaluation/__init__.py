"""Quality of what the server lets through and makes, measured: programs for operators, run by hand."""
