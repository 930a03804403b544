"""The command line `cozyctl`: one file for each verb."""
