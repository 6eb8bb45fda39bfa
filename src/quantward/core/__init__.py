"""The ground floor: values, contracts and small services that every room may use. Never imports torch."""
