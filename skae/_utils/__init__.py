"""What every room uses: inputs, memory, versions, interruptions; no torch."""
