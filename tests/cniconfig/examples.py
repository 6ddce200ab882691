"""Conflists as the usual networks leave them on a node: the shapes, the keys and the oddities of their spelling."""

ENTRY = {
    "agentSocket": "/var/run/istio-cni/agent.sock",
    "type": "istio-cni",
    "exclude_namespaces": ["istio-system", "kube-system"],
    "capabilities": {"io.kubernetes.cri.pod-annotations": True},
}

CALICO = b"""{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico",
      "log_level": "info",
      "log_file_path": "/var/log/calico/cni/cni.log",
      "datastore_type": "kubernetes",
      "nodename": "node-1",
      "mtu": 0,
      "ipam": {
          "type": "calico-ipam"
      },
      "policy": {
          "type": "k8s"
      },
      "kubernetes": {
          "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"
      }
    },
    {
      "type": "portmap",
      "snat": true,
      "capabilities": {"portMappings": true}
    },
    {
      "type": "bandwidth",
      "capabilities": {"bandwidth": true}
    }
  ]
}"""

FLANNEL = b"""{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"""

CILIUM = b"""
{
  "cniVersion": "0.3.1",
  "name": "cilium",
  "plugins": [
    {
       "type": "cilium-cni",
       "enable-debug": false,
       "log-file": "/var/run/cilium/cilium-cni.log"
    }
  ]
}
"""

AZURE = b"""{
   "cniVersion":"0.3.0",
   "name":"azure",
   "plugins":[
      {
         "type":"azure-vnet",
         "mode":"transparent",
         "ipsToRouteViaHost":["169.254.20.10"],
         "ipam":{
            "type":"azure-vnet-ipam"
         }
      },
      {
         "type":"portmap",
         "capabilities":{
            "portMappings":true
         },
         "snat":true
      }
   ]
}
"""

AWS = b"""{
\t"cniVersion": "0.4.0",
\t"name": "aws-cni",
\t"disableCheck": true,
\t"plugins": [
\t\t{
\t\t\t"name": "aws-cni",
\t\t\t"type": "aws-cni",
\t\t\t"vethPrefix": "eni",
\t\t\t"mtu": "9001",
\t\t\t"podSGEnforcingMode": "strict"
\t\t},
\t\t{
\t\t\t"type": "portmap",
\t\t\t"capabilities": {"portMappings": true},
\t\t\t"snat": true
\t\t}
\t]
}"""

KINDNET = b"""
{
\t"cniVersion": "0.3.1",
\t"name": "kindnet",
\t"plugins": [
\t{
\t\t"type": "ptp",
\t\t"ipMasq": false,
\t\t"ipam": {
\t\t\t"type": "host-local",
\t\t\t"dataDir": "/run/cni-ipam-state",
\t\t\t"routes": [
\t\t\t\t{ "dst": "0.0.0.0/0" }
\t\t\t],
\t\t\t"ranges": [
\t\t\t\t[ { "subnet": "10.244.0.0/24" } ]
\t\t\t]
\t\t}
\t\t,
\t\t"mtu": 1500
\t},
\t{
\t\t"type": "portmap",
\t\t"capabilities": {
\t\t\t"portMappings": true
\t\t}
\t}
\t]
}
"""

MULTUS_LIST = (
    b'{"cniVersion":"1.0.0","name":"multus-cni-network","plugins":[{"type":"multus-shim","logLevel":"verbose",'
    b'"clusterNetwork":"/host/etc/cni/net.d/10-calico.conflist","socketDir":"/host/run/multus/"}]}\n'
)

K3S = FLANNEL.replace(b"\n", b"\r\n").replace(b'"0.3.1"', b'"1.0.0"')

GKE = (
    b'{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [{"type": "ptp", "mtu": 1460, '
    b'"ipam": {"type": "host-local", "subnet": "10.4.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}, '
    b'{"type": "portmap", "capabilities": {"portMappings": true}}]}'
)

HUGGING = b"""{
  "name": "r\xc3\xa9seau-\xe7\xb6\xb2",
  "plugins": [{
    "type": "bridge", "note": "\xf0\x9f\x90\x8d \\ud83d\\udc0d \\ud800"
  }, {
    "type": "portmap" }]}"""

ONE_A_LINE = b'{ "plugins" : [\n   {"type": "bridge"},\n   {"type": "tuning", "sysctl": {}}\n],\n"name":"x" }\n\n'

DUPLICATE_KEYS = (
    b'{"name":"a","plugins":[{"type":"dead"}],"name":"b",'
    b'"\\u0070lugins":[ {"type":"dead","type":"bridge","x":1,"x":2} ] }'
)

NOT_UTF8 = b'{"name": "x", "comment": "caf\xe9 \xff", "plugins": [{"type": "bridge"}]}'

NUMBERS = (
    b'{"name":"x","plugins":[{"type":"bridge","a":1.10,"b":1E5,"c":-0,"d":123456789012345678901234567890,"e":1e-400}]}'
)

LISTS = {name.lower(): value for name, value in globals().copy().items() if isinstance(value, bytes)}

MULTUS_CONF = b"""{
    "name": "multus-cni-network",
    "type": "multus",
    "cniVersion": "0.3.1",
    "capabilities": {"portMappings": true},
    "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
    "delegates": [
        {"cniVersion": "0.3.1", "name": "default", "plugins": [{"type": "flannel"}]}
    ]
}
"""

OVN_CONF = (
    b'{"cniVersion":"0.4.0","name":"ovn-kubernetes","type":"ovn-k8s-cni-overlay","ipam":{},"dns":{},'
    b'"logFile":"/var/log/ovn.log"}'
)

BRIDGE_CONF = (
    b'\r\n\r\n{\r\n\t"type": "bridge",\r\n\t"name": "r\xe9seau",\r\n\t"ipam": {"type": "host-local"}\r\n}\r\n \r\n'
)

CONFS = {"multus": MULTUS_CONF, "ovn": OVN_CONF, "bridge": BRIDGE_CONF}
