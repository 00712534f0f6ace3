"""What is exported: `modules`, their graphs by `tracing`, cleaned by `passes`; variants of them."""
