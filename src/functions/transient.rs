//! `transient`: fails on purpose, so that a run with transient errors is seen to have had some.

use lambda_runtime::Diagnostic;
use serde_json::Value;

/// The failure that carries the run's transient errors into the execution's history.
pub fn transient(input: &Value) -> Diagnostic {
    let errors = input
        .get("TransientErrors")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let lines: Vec<String> = errors
        .iter()
        .map(|error| {
            error
                .as_str()
                .map_or_else(|| error.to_string(), ToOwned::to_owned)
        })
        .collect();
    let error_message = if lines.is_empty() {
        "this run reported transient errors without saying which".to_owned()
    } else {
        let noun = if lines.len() == 1 { "error" } else { "errors" };
        format!("{} transient {noun}: {}", lines.len(), lines.join("; "))
    };
    Diagnostic {
        error_type: "TransientErrors".to_owned(),
        error_message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn says_every_error() {
        let said = |errors: Value| transient(&json!({"TransientErrors": errors})).error_message;
        assert_eq!(
            said(json!(["IO is stopped", "one backend is down"])),
            "2 transient errors: IO is stopped; one backend is down"
        );
        assert_eq!(
            said(json!(["IO is stopped"])),
            "1 transient error: IO is stopped"
        );
    }

    #[test]
    fn survives_any_input() {
        for input in [
            json!(null),
            json!({}),
            json!({"TransientErrors": 3}),
            json!({"TransientErrors": [1]}),
        ] {
            assert_eq!(transient(&input).error_type, "TransientErrors");
        }
    }
}
