"""Alert rules as code, and the thresholds that boards, rules and commands share."""
