//! What a file is, found without compiling it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wasmparser::component_types::{
    ComponentDefinedType, ComponentEntityType, ComponentFuncTypeId, ComponentValType,
};
use wasmparser::types::Types;
use wasmparser::{Encoding, Parser, Payload, PrimitiveValType, ValidPayload, Validator, WasmFeatures};

use crate::limits;

/// The contract between a function and the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// `osiris:function@0.1.0`: `call: func(input: string) -> result<string, string>`.
    Native,
    /// `wasi:http/proxy@0.2`: `wasi:http/incoming-handler`.
    Http,
}

/// What [`inspect`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Which contract the component fulfils.
    pub world: World,
    /// The interfaces it imports, all of which are granted.
    pub imports: Vec<String>,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a file cannot run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// Larger than [`limits::COMPONENT_BYTES_MAX`].
    #[error(
        "The component has {size} bytes and at most {max} are accepted; build it in release mode and strip it."
    )]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The largest size that is accepted.
        max: u64,
    },
    /// The bytes are not WebAssembly at all.
    #[error("This is not a WebAssembly file; give the .wasm file that your build wrote.")]
    NotWasm,
    /// A core module, as `wasm32-unknown-unknown` or `wasm32-wasip1` make.
    #[error("This is a core WebAssembly module, not a component; build it for the target wasm32-wasip2.")]
    CoreModule,
    /// It is WebAssembly, and broken or too new.
    #[error("The component is not valid: {message}. Build it again, with a toolchain for WASI 0.2.")]
    Invalid {
        /// What the validator said, with the offset.
        message: String,
    },
    /// A limit that keeps compilation short is exceeded.
    #[error(
        "The component has {count} {what} and at most {max} are accepted; split the function into smaller ones."
    )]
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        count: u64,
        /// The limit.
        max: u64,
    },
    /// It wants an interface that functions are not given.
    #[error(
        "The component imports '{import}', which this node does not offer; functions may use wasi:cli, wasi:clocks, \
         wasi:filesystem, wasi:http, wasi:io, wasi:random and wasi:sockets of version 0.2."
    )]
    Import {
        /// The import's name.
        import: String,
    },
    /// It exports `call` with another type.
    #[error(
        "The component exports 'call' with a type other than 'func(string) -> result<string, string>'; use the osiris-function crate or the WIT world osiris:function@0.1.0."
    )]
    WrongCall,
    /// It fulfils no contract.
    #[error(
        "The component exports neither 'call' (osiris:function@0.1.0) nor 'wasi:http/incoming-handler@0.2'; it exports \
         {}.",
        list(exports)
    )]
    NoWorld {
        /// What it exports.
        exports: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// The interfaces of WASI 0.2 that a function may import. They are there and empty: no folder, no
/// environment, no network; `outgoing-handler` is refused when it is called.
const GRANTED: &[(&str, &[&str])] = &[
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
        ],
    ),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", &["preopens", "types"]),
    ("wasi:http", &["outgoing-handler", "types"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["insecure", "insecure-seed", "random"]),
    (
        "wasi:sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

const HTTP_EXPORT: &str = "wasi:http/incoming-handler";
/// The native world's export.
pub(crate) const NATIVE_EXPORT: &str = "call";

/// Splits `wasi:io/streams@0.2.3` into package, interface and whether the version is 0.2.
fn interface(name: &str) -> Option<(&str, &str)> {
    let (path, version) = name.split_once('@')?;
    let patch = version.strip_prefix("0.2.")?;
    let released = !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit());
    released.then(|| path.split_once('/'))?
}

fn is_granted(import: &str) -> bool {
    interface(import).is_some_and(|(package, name)| {
        GRANTED.iter().any(|(granted, names)| *granted == package && names.contains(&name))
    })
}

fn is_http_export(export: &str) -> bool {
    interface(export).is_some_and(|(package, name)| HTTP_EXPORT == format!("{package}/{name}"))
}

/// Finds out whether `bytes` can run here, without compiling them.
///
/// They must be a valid component of at most [`limits::COMPONENT_BYTES_MAX`] bytes that fulfils one of
/// the [`World`]s and imports only what functions are given. The time is linear in the size: about
/// 10 ms a MiB.
///
/// # Errors
///
/// The first thing that is wrong, as a sentence for the person who deploys it.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    let size = bytes.len() as u64;
    if size > limits::COMPONENT_BYTES_MAX {
        return Err(InspectError::TooLarge { size, max: limits::COMPONENT_BYTES_MAX });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(InspectError::NotWasm);
    }
    if Parser::is_core_wasm(bytes) {
        return Err(InspectError::CoreModule);
    }
    let outline = Outline::read(bytes)?;
    let imports: Vec<String> = outline.imports.keys().cloned().collect();
    if let Some(import) =
        outline.imports.iter().find_map(|(name, is_type)| (!is_type && !is_granted(name)).then_some(name))
    {
        return Err(InspectError::Import { import: import.clone() });
    }
    let world = match outline.call {
        Some(true) => World::Native,
        _ if outline.exports.iter().any(|e| is_http_export(e)) => World::Http,
        Some(false) => return Err(InspectError::WrongCall),
        None => return Err(InspectError::NoWorld { exports: outline.exports }),
    };
    Ok(Inspection { world, imports, size })
}

#[derive(Debug, Default)]
struct Outline {
    /// Name, and whether it is only a type.
    imports: BTreeMap<String, bool>,
    exports: Vec<String>,
    /// Whether the export `call` is a function of the right type, where there is one.
    call: Option<bool>,
}

fn invalid(error: &wasmparser::BinaryReaderError) -> InspectError {
    InspectError::Invalid { message: error.to_string() }
}

fn at_most(what: &'static str, count: u64, max: u64) -> Result<(), InspectError> {
    if count > max { Err(InspectError::TooComplex { what, count, max }) } else { Ok(()) }
}

impl Outline {
    /// Validates everything, in the order of the bytes, and notes the outermost imports and exports.
    fn read(bytes: &[u8]) -> Result<Self, InspectError> {
        let mut validator = Validator::new_with_features(WasmFeatures::default());
        let (mut outline, mut bodies, mut last) = (Self::default(), Vec::new(), None);
        let (mut depth, mut modules, mut functions) = (0_usize, 0_u64, 0_u64);
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|e| invalid(&e))?;
            match &payload {
                Payload::Version { encoding, .. } => {
                    depth += 1;
                    modules += u64::from(*encoding == Encoding::Module);
                    at_most("core modules", modules, limits::MODULES_MAX.into())?;
                }
                Payload::End(_) => depth -= 1,
                Payload::CodeSectionEntry(body) => {
                    functions += 1;
                    at_most("core functions", functions, limits::FUNCTIONS_MAX.into())?;
                    let range = body.range();
                    let size = (range.end - range.start) as u64;
                    at_most("bytes in one core function", size, limits::FUNCTION_BODY_BYTES_MAX)?;
                }
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section.clone() {
                        let name = import.map_err(|e| invalid(&e))?.name.name.to_owned();
                        outline.imports.insert(name, false);
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section.clone() {
                        outline.exports.push(export.map_err(|e| invalid(&e))?.name.name.to_owned());
                    }
                }
                _ => {}
            }
            match validator.payload(&payload).map_err(|e| invalid(&e))? {
                ValidPayload::Func(function, body) => bodies.push((function, body)),
                ValidPayload::End(types) => last = Some(types),
                ValidPayload::Ok | ValidPayload::Parser(_) => {}
            }
        }
        let mut allocations = wasmparser::FuncValidatorAllocations::default();
        for (function, body) in bodies {
            let mut function = function.into_validator(allocations);
            function.validate(&body).map_err(|e| invalid(&e))?;
            allocations = function.into_allocations();
        }
        let types =
            last.ok_or_else(|| InspectError::Invalid { message: "the file ends early".to_owned() })?;
        outline.add_types(&types);
        Ok(outline)
    }

    fn add_types(&mut self, types: &Types) {
        for (name, is_type) in &mut self.imports {
            let item = types.component_item_for_import(name);
            *is_type = matches!(item.map(|i| &i.ty), Some(ComponentEntityType::Type { .. }));
        }
        self.call = types.component_item_for_export(NATIVE_EXPORT).map(|item| match item.ty {
            ComponentEntityType::Func(function) => is_call(types, function),
            _ => false,
        });
    }
}

/// Whether a function's type is `func(string) -> result<string, string>`.
fn is_call(types: &Types, function: ComponentFuncTypeId) -> bool {
    const STRING: ComponentValType = ComponentValType::Primitive(PrimitiveValType::String);
    let function = &types[function];
    let [(_, parameter)] = &*function.params else { return false };
    let Some(ComponentValType::Type(result)) = function.result else { return false };
    let is_string = |ty: &Option<ComponentValType>| ty.as_ref().is_some_and(|ty| is_same(types, ty, &STRING));
    !function.async_
        && is_same(types, parameter, &STRING)
        && matches!(&types[result], ComponentDefinedType::Result { ok, err, .. } if is_string(ok) && is_string(err))
}

/// Whether two types are the same primitive, directly or by an alias.
fn is_same(types: &Types, a: &ComponentValType, b: &ComponentValType) -> bool {
    let primitive = |ty: &ComponentValType| match ty {
        ComponentValType::Primitive(primitive) => Some(*primitive),
        ComponentValType::Type(id) => match types[*id] {
            ComponentDefinedType::Primitive(primitive) => Some(primitive),
            _ => None,
        },
    };
    primitive(a).is_some() && primitive(a) == primitive(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspect_text(text: &str) -> Result<Inspection, InspectError> {
        inspect(&wat::parse_str(text).expect("valid text"))
    }

    #[test]
    fn what_is_not_a_component_is_refused_in_words() {
        assert_eq!(inspect(b""), Err(InspectError::NotWasm));
        assert_eq!(inspect(b"#!/bin/sh\n"), Err(InspectError::NotWasm));
        assert_eq!(inspect_text("(module)"), Err(InspectError::CoreModule));
        let error = inspect_text("(module)").expect_err("a core module").to_string();
        assert_eq!(
            error,
            "This is a core WebAssembly module, not a component; build it for the target wasm32-wasip2."
        );
        assert!(matches!(inspect(b"\0asm\x0d\0\x01\0garbage"), Err(InspectError::Invalid { .. })));
        assert!(matches!(inspect(b"\0asm"), Err(InspectError::Invalid { .. })));
    }

    #[test]
    fn an_invalid_function_body_is_found() {
        let text = "(component (core module (func (result i32) i64.const 1)))";
        assert!(matches!(inspect_text(text), Err(InspectError::Invalid { .. })));
    }

    #[test]
    fn an_unknown_import_is_named() {
        for import in [
            "wasi:keyvalue/store@0.2.0",
            "wasi:io/streams@0.3.0",
            "wasi:io/other@0.2.0",
            "acme:thing/api@1.0.0",
        ] {
            let text = format!(r#"(component (import "{import}" (instance)))"#);
            let error = inspect_text(&text).expect_err("not granted");
            assert_eq!(error, InspectError::Import { import: import.to_owned() });
            assert!(error.to_string().contains(import));
        }
    }

    #[test]
    fn a_component_without_a_world_is_refused() {
        assert_eq!(inspect_text("(component)"), Err(InspectError::NoWorld { exports: vec![] }));
        let wrong = r#"(component
            (core module $m (func (export "call") (param i32) (result i32) local.get 0))
            (core instance $i (instantiate $m))
            (func (export "call") (param "x" u32) (result u32) (canon lift (core func $i "call"))))"#;
        assert_eq!(inspect_text(wrong), Err(InspectError::WrongCall));
    }

    #[test]
    fn too_large_is_refused_before_it_is_read() {
        let size = limits::COMPONENT_BYTES_MAX + 1;
        let bytes = vec![0; size as usize];
        assert!(matches!(inspect(&bytes), Err(InspectError::TooLarge { .. })));
    }

    #[test]
    fn a_huge_function_body_is_refused() {
        let body = "nop ".repeat(limits::FUNCTION_BODY_BYTES_MAX as usize + 8);
        let text = format!("(component (core module (func {body})))");
        let error = inspect_text(&text).expect_err("too complex");
        assert!(
            matches!(error, InspectError::TooComplex { what: "bytes in one core function", .. }),
            "{error}"
        );
    }

    #[test]
    fn the_examples_pass() {
        for bytes in [osiris_examples::SUMMARY, osiris_examples::SUMMARY_V2] {
            let found = inspect(bytes).expect("a function");
            assert_eq!((found.world, found.size), (World::Native, bytes.len() as u64));
            assert!(found.imports.iter().all(|i| is_granted(i)));
        }
        assert_eq!(inspect(osiris_examples::CHART).expect("a function").world, World::Http);
    }
}
