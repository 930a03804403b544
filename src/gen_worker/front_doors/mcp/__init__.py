"""The Model Context Protocol: functions as tools, runs as resources."""
