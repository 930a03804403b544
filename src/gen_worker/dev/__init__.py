"""The dev HTTP runner: functions over HTTP on one machine, without a scheduler."""
