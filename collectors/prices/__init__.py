"""What models and GPUs cost, as tables in a lake."""
