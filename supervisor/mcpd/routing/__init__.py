"""Who gets which message: pure decisions over envelopes. No asyncio, clock, descriptor or logger in here."""
