"""Agents that act with models: policies that are served here, and models at endpoints."""
