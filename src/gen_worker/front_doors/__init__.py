"""Protocols of other programs (OpenAI, cog, MCP), served by ordinary runs."""
