"""Proofs that two checkpoints are one model: exact bytes, then attention scores with controls."""
