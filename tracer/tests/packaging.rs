//! The image, the manifests and the page about containers give the rights that the table asks for, and no more.

use std::{fs, path::Path};

use serde_yaml_ng::Value;
use tracer::rights::{FEATURES, Held, advice};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// As engines name them.
fn usual() -> Vec<String> {
    advice::usual().iter().map(|right| right.name().trim_start_matches("CAP_").to_owned()).collect()
}

/// Fails unless it is a user who is not root with these rights only.
#[track_caller]
fn assert_confined(context: &Value) {
    let list = |name: &str| -> Vec<String> {
        serde_yaml_ng::from_value(context["capabilities"][name].clone()).expect("a list of capabilities")
    };
    assert_eq!((list("drop"), list("add")), (vec!["ALL".to_owned()], usual()));
    for flag in ["runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation"] {
        assert_eq!(context[flag].as_bool(), Some(true), "{flag}");
    }
    assert!(!context["privileged"].as_bool().unwrap_or(false));
}

#[test]
fn the_daemon_set_has_the_usual_rights_and_the_hosts_pids() {
    let set: Value = serde_yaml_ng::from_str(&file("packaging/daemonset.yaml")).expect("YAML");
    assert_eq!(set["kind"].as_str(), Some("DaemonSet"));
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["hostPID"].as_bool(), Some(true));
    assert!(pod["hostNetwork"].is_null() && pod["volumes"].is_null(), "nothing else of the host");
    assert_confined(&pod["containers"][0]["securityContext"]);
}

#[test]
fn the_debugging_container_has_the_same() {
    let custom: Value = serde_yaml_ng::from_str(&file("packaging/kubectl-debug.yaml")).expect("YAML");
    assert_confined(&custom["securityContext"]);
}

#[test]
fn the_image_and_the_page_give_the_same() {
    let features = FEATURES.iter().filter(|feature| advice::is_usual(feature));
    let command = advice::setcap(&Held::of([]), features, "/conntracer");
    let in_image = command.trim_start_matches("sudo ").replace("=ep", "=p");
    assert!(file("packaging/Dockerfile").contains(&in_image), "{in_image}");
    let flags: Vec<_> = usual().iter().map(|name| format!("--cap-add {name}")).collect();
    assert!(file("docs/containers.md").contains(&flags.join(" ")), "{flags:?}");
}
